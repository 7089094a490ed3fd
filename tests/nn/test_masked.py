import pytest
import torch

from spatialsig.errors import InputError
from spatialsig.nn.masked import MaskedViT, check_maskable
from spatialsig.nn.vit import ViT, ViTConfig, optical_density

TINY = ViTConfig(dim=16, depth=1, heads=2, mlp_dim=16, stem=(4, 4), stem_blocks=(0, 0), pool="class", n_registers=1)


def net(**options) -> MaskedViT:
    torch.manual_seed(0)
    return MaskedViT(ViT(TINY), **options).eval()


IMAGE = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
IDS = torch.tensor([5, 6, 7])


def test_masks_belong_to_the_patch_and_hide_whole_blocks() -> None:
    model = net(block_tokens=2, mask_share=0.5)
    mask = model.masks(IDS, (4, 4), seed=1, epoch=0)
    assert mask.shape == (3, 4, 4)
    assert mask.flatten(1).sum(dim=1).tolist() == [8, 8, 8]  # 2 of 4 blocks of 2 x 2
    blocks = mask.view(3, 2, 2, 2, 2).permute(0, 1, 3, 2, 4).flatten(3)
    assert (blocks.all(dim=-1) == blocks.any(dim=-1)).all()
    alone = model.masks(IDS[2:], (4, 4), seed=1, epoch=0)
    assert torch.equal(alone[0], mask[2])
    many = torch.arange(64)
    assert not torch.equal(model.masks(many, (4, 4), seed=1, epoch=0), model.masks(many, (4, 4), seed=1, epoch=1))
    assert net(block_tokens=3).masks(IDS, (4, 4), seed=0, epoch=0).shape == (3, 4, 4)


def test_hidden_pixels_cannot_be_seen_and_shown_ones_can() -> None:
    model = net()
    mask = model.masks(IDS, (4, 4), seed=0, epoch=0)
    covered = mask.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None].expand_as(IMAGE)
    other = torch.where(covered, 255 - IMAGE, IMAGE)
    torch.testing.assert_close(model(other, mask), model(IMAGE, mask), rtol=0, atol=0)
    assert not torch.allclose(model(torch.where(covered, IMAGE, 255 - IMAGE), mask), model(IMAGE, mask))


def test_the_loss_is_the_error_on_hidden_blocks_by_hand() -> None:
    model = net()
    mask = model.masks(IDS, (4, 4), seed=0, epoch=0)
    painted, od = model(IMAGE, mask), optical_density(IMAGE)
    errors = []
    for b, row, column in mask.nonzero().tolist():
        block = od[b, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].reshape(-1)
        scaled = (block - block.mean()) / (block.var(correction=0) + 1e-3).sqrt()
        errors.append((painted[b, 4 * row + column] - scaled).square().mean())
    torch.testing.assert_close(model.loss(IMAGE, mask), torch.stack(errors).mean())


def test_impossible_masks_are_refused() -> None:
    with pytest.raises(InputError, match="`mask_share=1.0` must lie above 0 and below 1"):
        net(mask_share=1.0)
    with pytest.raises(InputError, match="`block_tokens=0` must be a whole number"):
        net(block_tokens=0)
    with pytest.raises(InputError, match="patches of 30 px cannot be masked in blocks of 2 tokens of 4 px"):
        check_maskable(30, 4, 2)
    with pytest.raises(InputError, match="at least 12"):
        check_maskable(8, 4, 2)
