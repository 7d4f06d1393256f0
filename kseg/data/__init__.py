"""Datasets of road scenes: what they hold, readers, TFRecord folders, the tf.data pipeline.

Import the submodule that you need; this file imports nothing, so that preparing data needs no TensorFlow.
"""
