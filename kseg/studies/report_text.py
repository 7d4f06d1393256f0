"""The report of a study as text: the verdict of every pair first, then what it rests on."""

from kseg.io.text import count_text, decimals, first_names, listed, shown_gap, signed
from kseg.studies.statistics.significance import MEANINGFUL
from kseg.studies.statistics.verdict import BETTER, EQUAL
from kseg.studies.study_plan import SECONDS

MEANINGFUL_NOTE = (
    "* A is better by the rule of Bouthillier et al. (2021): the interval of P(A > B) lies above 0.5 and reaches "
    f"above {MEANINGFUL}."
)
_ALPHA = 0.05
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


def headline(section):
    """Return the first sentences of a section of report.json: which model is best, and what of it is settled."""
    pairs = section["pairs"]
    if section["open"]:
        return section["open"]
    if len(pairs) == 1:
        return pairs[0]["verdict"]
    best = section["scores"][0]
    if not pairs:
        return (
            f"{best['model']} has mean IoU {best['mean_iou']:.4f} (95 % interval {_ends(best, 4)}). It is the only "
            "model, so nothing is compared."
        )
    of_best = {BETTER: [], EQUAL: []}
    for pair in pairs:
        if best["model"] in (pair["first"], pair["second"]) and pair["result"] in of_best:
            of_best[pair["result"]].append(pair["second"] if pair["first"] == best["model"] else pair["first"])
    says = [f"{best['model']} has the highest mean IoU, {best['mean_iou']:.4f} (95 % interval {_ends(best, 4)})."]
    if of_best[BETTER]:
        says.append(f"It is better than {listed(of_best[BETTER])}.")
    if of_best[EQUAL]:
        says.append(f"It is practically equal to {listed(of_best[EQUAL])}.")
    lacks = pairs[0]["lacks"]
    if lacks:
        return " ".join([*says, f"No pair of models can be settled: {', and '.join(lacks)}."])
    done = {best["model"], *of_best[BETTER], *of_best[EQUAL]}
    left = [row["model"] for row in section["scores"] if row["model"] not in done]
    if left:
        says.append(f"Nothing is settled between it and {listed(left)}.")
    settled = count_text(sum(pair["result"] in of_best for pair in pairs), "is", "are")
    says.append(f"Of {len(pairs)} pairs of models, {settled} settled.")
    return " ".join(says)


def _ends(row, digits, sign=""):
    """Return an interval as text, "no interval" where nothing is known."""
    if row["low"] is None:
        return "no interval"
    return f"{decimals(row['low'], digits, sign)} to {decimals(row['high'], digits, sign)}"


def _section_lines(section):
    title = f"{section['data']}, split {section['split']}"
    if "left_out" in section:
        title = f"{section['data']}, scored on what each run left out of train"
    elif "images" in section:
        title += f", {count_text(section['images'], 'image')}"
    yield f"{title}:"
    if len(section["pairs"]) != 1:
        yield section["headline"]
    yield from (pair["verdict"] for pair in section["pairs"])
    if section["scores"]:
        yield ""
        runs = "left out" if "left_out" in section else "runs"
        yield from _aligned([("model", "mean IoU", "95 % interval", runs, "lowest", "highest"), *_scores(section)])
    if section["pairs"]:
        yield ""
        test = "sign test p" if "left_out" in section else "seed test p"
        yield from _aligned([(*_PAIR_TITLES, test, "with Holm"), *map(_pair, section["pairs"])])
        if any(pair["superiority"] and pair["superiority"]["meaningful"] for pair in section["pairs"]):
            yield MEANINGFUL_NOTE
        if section["seed_test_note"]:
            yield section["seed_test_note"]
        varied = [pair for pair in section["pairs"] if pair["shares"] is not None]
        if varied:
            yield ""
            yield "Where the variance of the difference comes from:"
            titles = ("pair", *varied[0]["shares"])
            yield from _aligned([titles, *map(_shares, varied)])
            yield ""
            for pair in varied:
                yield f"{pair['first']} and {pair['second']}: {pair['budget']['sentence']}"
    if section.get("objects"):
        yield ""
        yield from _object_lines(section["objects"])
    if "groups" in section:
        yield ""
        yield section["groups"]["meaning"]
    if section["fixed_note"]:
        yield section["fixed_note"]
    if section["missing"]:
        missing = section["missing"]
        yield f"{count_text(len(missing), 'run')} not there: {first_names(missing, _MOST_MISSING)}."
    if section["unpaired"]:
        unpaired = section["unpaired"]
        yield (
            f"{count_text(len(unpaired), 'finished run')} not counted above, because another model has no run of that "
            f"seed: {first_names(unpaired, _MOST_MISSING)}."
        )


def fixed_note(section):
    """Return what the numbers of models without seeds can tell; "" where there are none."""
    if not section["fixed"]:
        return ""
    names = " and ".join(section["fixed"])
    unit = section["groups"]["unit"] if "groups" in section else "group"
    if len(section["fixed"]) == 1:
        return (
            f"{names} is fixed: it was not trained here and has one run without a seed. The interval of its score is "
            f"over {unit}s alone. In a difference to it, {unit}s and the other model's seeds vary; it spent no budget."
        )
    return (
        f"{names} are fixed: they were not trained here and have one run each, without a seed. Intervals of their "
        f"scores and of differences between them are over {unit}s alone. In a difference to a trained model, {unit}s "
        "and that model's seeds vary. They spent no budget."
    )


def seed_test_note(section):
    """Return that so many pairs leave the test over seeds no chance to fall below .05; "" where it has one."""
    tests = [pair["seed_test"] for pair in section["pairs"] if pair["seed_test"] is not None]
    if not tests:
        return ""
    least = max(test["smallest_p"] for test in tests) * len(tests)
    if least < _ALPHA:
        return ""
    over = "groups" if "left_out" in section else "seeds"
    return (
        f"Over {count_text(len(tests), 'pair')}, the p of the test over {over} cannot fall below {min(least, 1):.2g} "
        f"(Holm) with so few {over}. The verdicts do not rest on it."
    )


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
    of_seeds = ("-", "-", "-")
    if pair["seed_test"] is not None:
        chance = pair["superiority"]
        of_seeds = (
            f"{chance['value']:.2f} ({chance['low']:.2f} to {chance['high']:.2f}){'*' * chance['meaningful']}",
            f"{pair['seed_test']['p']:.2g}",
            f"{pair['seed_test']['p_holm']:.2g}",
        )
    return (
        f"{pair['first']} - {pair['second']}",
        signed(shown_gap(pair["second_score"], pair["first_score"], pair["digits"]), pair["digits"]),
        _ends(pair, pair["digits"], "+"),
        f"{pair['p']:.2g}",
        f"{pair['p_equivalent']:.2g}",
        *of_seeds,
    )


def _object_lines(table):
    """Say how many objects each model finds, by size."""
    yield (
        f"Objects found (at least {table['overlap']:.0%} of the pixels predicted as the object's class), share and "
        "95 % interval:"
    )
    sizes = [f"{row['size']} {row['pixels']}".strip() for row in table["sizes"]]
    rows = [("model", *sizes), ("objects", *(f"{row['objects']:,}" for row in table["sizes"]))]
    for model in zip(*(row["models"] for row in table["sizes"]), strict=True):
        rows.append((model[0]["model"], *(f"{cell['value']:.3f} ({_ends(cell, 3)})" for cell in model)))
    yield from _aligned(rows)


def _shares(pair):
    return (f"{pair['first']} - {pair['second']}", *(f"{share:.0%}" for share in pair["shares"].values()))


def _cost_lines(table):
    limit = table["plan"]["budget"]
    yield f"Budget of each run: {limit['value']:.6g} {limit['kind']}."
    of_seconds = limit["kind"] in SECONDS
    if table["seconds_note"]:
        yield table["seconds_note"]
    spent_and_left = () if of_seconds else ("spent", "left")
    rows = [
        (
            "model",
            "data",
            "parameters",
            "multiply-adds an image",
            "images seen",
            *spent_and_left,
            "CPU seconds",
            "memory",
        )
    ]
    for row in table["costs"]:
        memory = "?"
        if row["peak_memory"] is not None:
            memory = f"{row['peak_memory'] / 1e9:.2f} GB"
        if not of_seconds:
            left = row["budget"] - row["spent"]
            spent_and_left = (f"{row['spent']:.6g}", f"{left:.3g} ({left / row['budget']:.2%})")
        rows.append(
            (
                row["model"],
                row["data"],
                f"{row['parameters']:,}",
                f"{row['multiply_adds']:,}",
                f"{row['images_seen']:,}",
                *spent_and_left,
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
