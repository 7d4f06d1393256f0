"""The proof itself, of runtimes that are wrong in one known way: what it refuses, and what it then says."""

import numpy as np
import pytest
import tiny
from test_exports import smooth

from kseg.data.pipeline.load import open_split
from kseg.export.proof import ExportError, Runtime, prove
from kseg.export.proof_images import ProofImages, reference
from kseg.layers.preprocessing import preprocess_layer

IMAGE = smooth(1)[0]
ROAD, CAR, SKY = range(3)
KIND = "web page"  # of which labels and confidence are compared, no more


@pytest.fixture(scope="module")
def model():
    model = tiny.brightness_model()
    preprocess_layer(model).label_set = tiny.LABELS
    return model


def wrong_runtime(model, wrong):
    """Keras' own answers, changed by a function (images, labels, confidence) -> (labels, confidence)."""
    own = reference(model)
    return Runtime(lambda images, output="labels": (*wrong(images, *own(images)), 0.001, 10**6), {})


def refusal(model, wrong, split=None):
    images = ProofImages("1 test image", [("image 0", IMAGE)], split)
    with pytest.raises(ExportError) as error:
        prove(model, wrong_runtime(model, wrong), images, kind=KIND)
    return str(error.value)


def test_wrong_labels_name_image_size_and_class(model):
    """Every pixel of a car is sky."""
    said = refusal(model, lambda images, labels, confidence: (np.where(labels == CAR, SKY, labels), confidence))
    assert "In images of 90x60 in batches of 1, " in said and " Worst is image image 0: " in said
    assert "most of it is class car, of which 0.00% is the same and the most is sky." in said


def test_wrong_confidences_name_image_size_and_class(model):
    """Those of sky are 0.25 off, those of cars 0.05, and there are about as many pixels of both."""
    labels = reference(model)(IMAGE[None])[0]
    assert 0.25 * (labels == SKY).sum() > 0.05 * (labels == CAR).sum() > 0
    near = (labels == ROAD).mean()
    gap = 0.25 * (labels == SKY).mean() + 0.05 * (labels == CAR).mean()

    def wrong(images, labels, confidence):
        return labels, confidence - 0.25 * (labels == SKY) - 0.05 * (labels == CAR)

    said = refusal(model, wrong)
    assert f"In images of 90x60 in batches of 1, the confidence of {near:.2%} of the pixels is within 0.01" in said
    assert f"Worst is image image 0: it differs by {gap:.3g} on average; most of it is class sky, by 0.25." in said


def test_labels_of_another_shape_name_image_and_size(model):
    said = refusal(model, lambda images, labels, confidence: (labels[:, 1:], confidence))
    assert "Of image image 0 of 90x60 the web page file must give labels and confidence of (1, 60, 90)" in said
    assert "but gives (1, 59, 90) and (1, 60, 90)" in said


def test_a_file_that_is_wrong_on_the_validation_split_alone_is_refused(model, records):
    """In one image of the split, sky is labelled as a car. Keras labels them all right: they are drawn for it."""
    split = open_split(records, "val")
    pairs = [split[i] for i in range(len(split))]
    place = max(range(len(pairs)), key=lambda i: (pairs[i][1] == SKY).sum())
    image = pairs[place][0]
    assert image.shape == (32, 48, 3) != IMAGE.shape

    def wrong(images, labels, confidence):
        if np.array_equal(images[0], image):
            labels = np.where(labels == SKY, CAR, labels)
        return labels, confidence

    pixels = np.bincount(np.concatenate([truth.ravel() for _, truth in pairs]), minlength=256)
    moved = int((pairs[place][1] == SKY).sum())
    sky = (pixels[SKY] - moved) / pixels[SKY]
    car = pixels[CAR] / (pixels[CAR] + moved)
    mean = (1 + car + sky) / 3
    worst, iou = min(("sky", sky), ("car", car), key=lambda pair: pair[1])
    share = np.mean(reference(model)(image[None])[0] == SKY)  # void pixels too
    said = refusal(model, wrong, split)
    assert said == (
        f"The web page file has a mean IoU of {mean:.4f} on the validation split, Keras has 1.0000. They must not "
        f"differ by more than 0.002. Most of it is class {worst} (IoU {iou:.4f}, Keras 1.0000); most labels differ in "
        f"image {split.split.names[place]} of 48x32 ({share:.2%}). Nothing was written."
    )
