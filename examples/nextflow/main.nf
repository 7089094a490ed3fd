// Molecular signatures from H&E, from bundles to the evaluation: one task per slide where slides are independent.
//
//   nextflow run main.nf --input samplesheet.csv --outdir results
//
// samplesheet.csv: columns sample, patient, bundle. Stores are written in place below --outdir, which all tasks have to
// see at the same path; tasks hand on values that say what was done.

nextflow.enable.dsl = 2

params.input = 'samplesheet.csv'
params.outdir = 'results'
params.signatures = 'tumour_microenvironment'
params.n_folds = 4
params.test_fold = 0

// tasks run in directories of their own
def place(name) { "${file(params.outdir).toAbsolutePath()}/${name}" }

process IMPORT {
    tag "${sample}"
    input:
    val sample
    output:
    val sample
    script:
    // paths in the sheet are relative to it, so that it is read where it lies
    "spatialsig import '${file(params.input).toAbsolutePath()}' --out '${place('stores')}' --only '${sample}' --quiet"
}

process SPLIT {
    input:
    val samples
    output:
    val samples
    script:
    "spatialsig split '${place('stores')}' --n-folds ${params.n_folds} --quiet"
}

process TRAIN_AUTOENCODER {
    label 'process_high'
    input:
    val samples
    output:
    val samples
    script:
    "spatialsig train-ae '${place('stores')}' --out '${place('models/autoencoder')}' --signatures '${params.signatures}' --test-fold ${params.test_fold} --overwrite --quiet"
}

process EMBED {
    tag "${sample}"
    input:
    val sample
    output:
    val sample
    script:
    "spatialsig embed '${place('stores')}' --model '${place('models/autoencoder')}' --only '${sample}' --quiet"
}

process LABEL {
    tag "${sample}"
    input:
    val sample
    output:
    val sample
    script:
    "spatialsig label '${place('stores')}' --signatures '${params.signatures}' --test-fold ${params.test_fold} --only '${sample}' --quiet"
}

process TRAIN {
    label 'process_high'
    input:
    val samples
    output:
    val samples
    script:
    "spatialsig train '${place('stores')}' --out '${place('models/vit')}' --test-fold ${params.test_fold} --overwrite --quiet"
}

process PREDICT {
    tag "${sample}"
    input:
    val sample
    output:
    val sample
    script:
    "spatialsig predict '${place('stores')}' --model '${place('models/vit')}' --only '${sample}' --quiet"
}

process EVALUATE {
    input:
    val samples
    output:
    val samples
    script:
    "spatialsig evaluate '${place('stores')}' --model '${place('models/vit')}' --out '${place('evaluation.csv')}' --quiet"
}

workflow {
    samples = Channel.fromPath(params.input, checkIfExists: true).splitCsv(header: true, strip: true).map { row -> row.sample }
    imported = IMPORT(samples).collect()
    trained = TRAIN_AUTOENCODER(SPLIT(imported))
    embedded = EMBED(trained.flatten()).collect()
    labelled = LABEL(embedded.flatten()).collect()
    model = TRAIN(labelled)
    PREDICT(model.flatten())
    EVALUATE(model)
}
