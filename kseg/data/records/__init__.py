"""Record folders: TFRecord shards and their manifest."""
