"""The report of a study as text: the verdict of every pair first, then what it rests on."""

from kseg.io.text import count_text, first_names

_MOST_MISSING = 5


def text_of(table):
    """Return report.txt. table: what report.json holds."""
    lines = [f"Study {table['name']}"]
    for section in table["sections"]:
        lines += ["", *_section_lines(section)]
    if table["costs"]:
        lines += ["", *_cost_lines(table)]
    if table["before"]:
        lines += ["", "Before the study:", *table["before"]]
    for one in table["broken"]:
        lines += ["", f"BROKEN {one['run']} (exit code {one['code']}), {one['log']}:"]
        lines += [f"    {line}" for line in one["end"]]
    return "\n".join(lines)


def _section_lines(section):
    title = f"{section['data']}, split {section['split']}"
    if "left_out" in section:
        title = f"{section['data']}, scored on what each run left out of train"
    elif "images" in section:
        title += f", {count_text(section['images'], 'image')}"
    yield f"{title}:"
    if section["open"]:
        yield section["open"]
    yield from (pair["verdict"] for pair in section["pairs"])
    if section["scores"]:
        yield ""
        runs = "left out" if "left_out" in section else "runs"
        yield from _aligned([("model", "mean IoU", "95 % interval", runs, "lowest", "highest"), *_scores(section)])
    if section["pairs"]:
        yield ""
        test = "sign test p" if "left_out" in section else "seed test p"
        yield from _aligned([(*_PAIR_TITLES, test, "with Holm"), *map(_pair, section["pairs"])])
        if section["pairs"][0]["shares"] is not None:
            yield ""
            yield "Where the variance of the difference comes from:"
            titles = ("pair", *section["pairs"][0]["shares"])
            yield from _aligned([titles, *map(_shares, section["pairs"])])
            yield ""
            for pair in section["pairs"]:
                yield f"{pair['first']} and {pair['second']}: {pair['budget']['sentence']}"
    if "groups" in section:
        yield ""
        yield section["groups"]["meaning"]
    if section["missing"]:
        missing = section["missing"]
        yield f"{count_text(len(missing), 'run')} not there: {first_names(missing, _MOST_MISSING)}."


def _scores(section):
    for row in section["scores"]:
        runs = row["runs"].values()
        yield (
            row["model"],
            f"{row['mean_iou']:.4f}",
            f"{row['low']:.4f} to {row['high']:.4f}",
            str(len(runs)),
            f"{min(runs):.4f}",
            f"{max(runs):.4f}",
        )


_PAIR_TITLES = (
    "A - B",
    "difference",
    "interval",
    "p (Holm)",
    "p equivalent",
    "P(A > B)",
)


def _pair(pair):
    chance = pair["superiority"]
    return (
        f"{pair['first']} - {pair['second']}",
        f"{pair['difference']:+.4f}",
        f"{pair['low']:+.4f} to {pair['high']:+.4f}",
        f"{pair['p']:.2g}",
        f"{pair['p_equivalent']:.2g}",
        f"{chance['value']:.2f} ({chance['low']:.2f} to {chance['high']:.2f})",
        f"{pair['seed_test']['p']:.2g}",
        f"{pair['seed_test']['p_holm']:.2g}",
    )


def _shares(pair):
    return (f"{pair['first']} - {pair['second']}", *(f"{share:.0%}" for share in pair["shares"].values()))


def _cost_lines(table):
    limit = table["plan"]["budget"]
    yield f"Budget of each run: {limit['value']:.6g} {limit['kind']}."
    if limit["kind"] == "seconds":
        yield "It was turned into steps by a pilot; 'spent' is what the whole training process took, on average."
    rows = [
        (
            "model",
            "data",
            "parameters",
            "multiply-adds an image",
            "images seen",
            "spent",
            "left",
            "CPU seconds",
            "memory",
        )
    ]
    for row in table["costs"]:
        memory = "?"
        if row["peak_memory"] is not None:
            memory = f"{row['peak_memory'] / 1e9:.2f} GB"
        left = row["budget"] - row["spent"]
        rows.append(
            (
                row["model"],
                row["data"],
                f"{row['parameters']:,}",
                f"{row['multiply_adds']:,}",
                f"{row['images_seen']:,}",
                f"{row['spent']:.6g}",
                f"{left:.3g} ({left / row['budget']:.2%})",
                f"{row['cpu_seconds']:.0f}",
                memory,
            )
        )
    yield from _aligned(rows)


def _aligned(rows):
    """Return rows of texts as lines of columns, the first to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        first = f"{row[0]:{widths[0]}}"
        yield "  ".join([first, *(f"{text:>{width}}" for text, width in zip(row[1:], widths[1:], strict=True))])
