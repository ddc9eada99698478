"""What a model card says of groups of patients, and of how masks change with the image turned."""

from collections.abc import Mapping
from typing import Any

from federated.release.card_blocks import NOT_RUN, Block, Table, Text, plain, plains
from federated.report.subgroup_part import flip_part, subgroup_part
from federated.report.values import Numbers, RunValues


def group_blocks(run: RunValues, numbers: Numbers) -> list[Block]:
    """The blocks of the card's section on groups of patients."""
    part = subgroup_part(run, numbers)
    if part is None:
        return [
            Text(
                f"{NOT_RUN} Nobody asked for metrics by age, sex, scanner or the like, so that "
                "nobody knows how good the model is for each of them."
            )
        ]
    blocks: list[Block] = [
        Text(
            ("The images are generated, so that these are groups of no patients. " * run.phantom)
            + "Test cases of the sites, by what their tables say of them, in the groups that the "
            "run's plan names. In brackets is a 95 % interval, where it is known: groups whose "
            "intervals overlap may differ by chance alone. No group was looked at beyond these, "
            "and none of several attributes together."
        )
    ]
    for table in part["tables"]:
        heads = (table["name"], "test cases", *part["heads"], "told by, of the sites")
        rows = [
            plains((row["name"], row["cases"], *map(_cell, row["cells"]), row["sites"]))
            for row in table["rows"]
        ]
        blocks.append(Table(f"Test cases by {plain(table['name'])}", plains(heads), rows))
    if part["few"]:
        blocks.append(
            Text(
                f"Some groups have fewer than {part['few']} test cases: a metric of so few says "
                "little of other patients like them.",
                warns=True,
            )
        )
    if part["hidden"]:
        blocks.append(
            Text(
                f"Sites hide groups from which fewer than {part['least']} of their cases could be "
                "read; the numbers of such a group are of the sites that tell it alone."
            )
        )
    if part["rough"]:
        blocks.append(
            Text("The AUC of a group follows from histograms of 128 bins; bins are its bounds.")
        )
    blocks += [Text(plain(f"Without {line}")) for line in part["missing"]]
    return blocks


def _cell(cell: Mapping[str, Any]) -> str:
    ends = [cell["interval"], f"bins {cell['bounds']}" if cell["bounds"] else ""]
    said = "; ".join(end for end in ends if end)
    return f"{plain(cell['value'])} ({said})" if said else plain(cell["value"])


def flip_blocks(run: RunValues, numbers: Numbers) -> list[Block]:
    """The blocks on flips; none where nobody asked for them."""
    part = flip_part(run, numbers)
    if part is None:
        return []
    rows = [plains(row) for row in part["rows"]]
    return [
        Table("Test cases with the image flipped", ("mean variance over flips", "test"), rows),
        Text(
            f"Each of {plain(part['cases'])} test cases was predicted {part['times']} times, along "
            "every combination of its axes flipped. The variance of the probabilities is from 0 to "
            "0.25, and points at errors where it is larger in what was predicted wrongly."
        ),
    ]
