"""Images and classes in every form that Python code has them become the same split."""

import numpy as np
import pytest
import torch
from PIL import Image

from efface.api.images import split_of
from small.messages import names

IMAGES = torch.randint(0, 256, (5, 3, 6, 7), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
LABELS = torch.tensor([0, 1, 2, 1, 0])
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.25]
FLOATS = IMAGES.float() / 255
NORMALISED = (FLOATS - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
NHWC = IMAGES.permute(0, 2, 3, 1).numpy()
PICTURES = [Image.fromarray(image) for image in NHWC]


class Pairs(torch.utils.data.Dataset):
    def __init__(self, images, labels):
        self.images, self.labels = images, labels

    def __len__(self):
        return len(self.images)

    def __getitem__(self, row):
        return self.images[row], self.labels[row]


FORMS = {
    "uint8": (IMAGES, LABELS),
    "floats": (FLOATS, LABELS),
    "double": (FLOATS.double(), LABELS),
    "half of 255ths": ((IMAGES // 128 * 255).half() / 255, LABELS),
    "array of channels last": (NHWC, LABELS.numpy()),
    "array of channels first": (IMAGES.numpy(), LABELS.tolist()),
    "pictures": (PICTURES, LABELS),
    "list of tensors": (list(FLOATS), LABELS),
    "list of arrays": (list(NHWC), LABELS),
    "data set": (Pairs(FLOATS, LABELS), None),
    "data set of pictures": (Pairs(PICTURES, LABELS.tolist()), None),
    "loader": (torch.utils.data.DataLoader(Pairs(FLOATS, LABELS), batch_size=2), None),
    "tensor data set": (torch.utils.data.TensorDataset(IMAGES, LABELS), None),
    "labels of one column": (IMAGES, LABELS[:, None]),
    "labels in floats": (IMAGES, LABELS.double()),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_split(form):
    images, labels = FORMS[form]
    split = split_of(images, labels)
    wanted = IMAGES // 128 * 255 if "255ths" in form else IMAGES
    assert torch.equal(split.images, wanted)
    assert torch.equal(split.targets, LABELS)
    assert split.targets.dtype == torch.int64
    assert split.notes == ()


def test_normalised_images_are_read_back_by_mean_and_std():
    assert torch.equal(split_of(NORMALISED, LABELS, mean=MEAN, std=STD).images, IMAGES)


def test_grey_images_get_a_channel():
    assert split_of(IMAGES[:, 0], LABELS).images.shape == (5, 1, 6, 7)
    grey = [Image.fromarray(image.numpy()) for image in IMAGES[:, 0]]
    assert torch.equal(split_of(grey, LABELS).images[:, 0], IMAGES[:, 0])


def test_rounding_is_said():
    split = split_of(torch.rand(2, 3, 4, 4), [0, 1])
    assert any(names(note, "floats rounded 8 bits") for note in split.notes)


BAD = {
    "normalised": ((NORMALISED, LABELS), {}, "values from mean std"),
    "another normalisation": ((NORMALISED * 9, LABELS), {"mean": MEAN, "std": STD}, "another normalisation"),
    "0 to 255 in floats": ((IMAGES.float(), LABELS), {}, "Divide images of 0 to 255 by 255"),
    "NaN": ((FLOATS / 0 * 0, LABELS), {}, "image 0 holds NaN"),
    "64-bit integers": ((IMAGES.long(), LABELS), {}, "int64 expected uint8"),
    "either order": ((np.zeros((2, 3, 5, 3), np.uint8), [0, 1]), {}, "n c h w or n h w c tensor"),
    "no labels": ((IMAGES,), {}, "labels are missing"),
    "too few labels": ((IMAGES, LABELS[:3]), {}, "5 images 3 labels"),
    "several labels": ((IMAGES, torch.zeros(5, 2)), {}, "one whole number for each image"),
    "scores": ((IMAGES, torch.rand(5)), {}, "one whole number"),
    "two sizes": (([FLOATS[0], FLOATS[1, :, :3]], [0, 1]), {}, "image 1 one size"),
    "a path": (("folder", LABELS), {}, "a str expected"),
    "no pairs": (([1, 2],), {}, "item 0 expected a pair"),
    "no images": ((torch.utils.data.TensorDataset(IMAGES[:0], LABELS[:0]),), {}, "no images"),
    "16 bits": (([Image.new("I;16", (4, 4))], [0]), {}, "which value is white"),
}


@pytest.mark.parametrize("case", BAD)
def test_everything_else_is_refused_in_words(case):
    given, settings, said = BAD[case]
    with pytest.raises(ValueError) as error:
        split_of(*given, **settings)
    assert names(str(error.value), said)
