"""One model, images in, labels out."""
