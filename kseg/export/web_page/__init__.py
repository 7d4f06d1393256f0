"""The page of a web export, as it is before the model comes in; onnxruntime_web/ is Microsoft's (see its LICENSE)."""
