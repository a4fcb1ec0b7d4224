"""Networks whose weights others trained, loaded and run."""
