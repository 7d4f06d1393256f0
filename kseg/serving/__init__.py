"""A model over HTTP: the Open Inference Protocol, version 2, on one machine."""
