"""Whether a record folder has what is asked of it, judged before anything imports Keras."""

from kseg.data.groups import check_group_by, groups_of
from kseg.data.pipeline.examples import Examples


def check_asked(data_dir, split, label_set=None, label_space=None, group_by=None):
    """Return the `Examples` of a split; refuse records without it, the label set or the groups that are asked for.

    With a label_space it returns None and looks at no records: reading what such a folder holds takes long.

    Args: `data_dir`, `split`, `label_set`, `label_space`, `group_by`: as in `kseg.evaluate`.
    """
    if group_by:
        check_group_by(group_by)
    if label_space:
        return None
    scored = Examples(data_dir, split, label_set=label_set)
    if group_by:
        groups_of(scored.split.names, group_by, scored.manifest.drive)
    return scored
