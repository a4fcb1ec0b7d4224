"""Following the byte code of a step while it is captured, to know what its program rests on."""
