"""Files, pictures, TFRecords, processes, text: what all other rooms build on."""
