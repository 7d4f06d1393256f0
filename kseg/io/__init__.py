"""Files, pictures, TFRecords, processes, text: what every room stands on."""
