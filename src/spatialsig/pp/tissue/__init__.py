"""Tissue masks: segmented from the H&E, or read from the shapes and labels of any tool."""
