"""What bench/gpu.py measured, as Markdown."""

from __future__ import annotations

from statistics import median

from tables import table, whence


def devices(entries: dict[str, dict]) -> str:
    """Decoding against the memory, training against the arithmetic, and the schedule, for each device."""
    blocks = []
    for entry in entries.values():
        decoded, whole = [], []
        for name, shape in entry["shapes"].items():
            decoded += [
                (
                    name,
                    row["rows"],
                    f"{row['rate']:,.0f}",
                    f"{row['limit']:,.0f}",
                    f"**{row['rate'] / row['limit']:.0%}**",
                )
                for row in shape["decode"]
            ]
            memory = f"{shape['peak_gb']:.1f}" if "peak_gb" in shape else ""
            whole.append((name, *usage(shape, entry), *step_and_schedule(shape), memory))
        limits = f"copy {entry['bandwidth'] / 1e9:,.0f} GB/s, bf16 multiplication {entry['gemm'] / 1e12:,.1f} TFLOP/s"
        head = (
            "shape",
            "update, s",
            "TFLOP/s",
            "of the measured rate",
            "of the data sheet's",
            "step, s",
            "500 steps, h",
            "peak GB",
        )
        blocks += [
            f"{entry['device']}: {limits}.",
            table(("shape", "rows", "decoded tok/s", "memory's limit", "share"), decoded),
            table(head, whole),
            beside_trl(entry),
        ]
    return "\n\n".join((*blocks, whence(entries.values())))


def usage(shape: dict, entry: dict) -> tuple[str, str, str, str]:
    """An update's seconds and rate, and that rate over what the device can do."""
    if "update" not in shape:
        return ("not measured",) * 4
    rate, sheet = shape["update"]["rate"], entry["datasheet"]
    of_sheet = f"{rate / sheet:.0%}" if sheet else "unknown"
    return f"{shape['update']['seconds']:.2f}", f"{rate / 1e12:,.2f}", f"{rate / entry['gemm']:.0%}", of_sheet


def step_and_schedule(shape: dict) -> tuple[str, str]:
    if "step" not in shape:
        return "not measured", "not measured"
    spent = median(row["seconds"] for row in shape["step"])
    return f"{spent:.2f}", f"{500 * spent / 3600:.2f}"


def beside_trl(entry: dict) -> str:
    """One sentence on the smallest shape's step."""
    name, ours = next(iter(entry["shapes"].items()))
    if isinstance(entry["trl"], str):
        return f"TRL's step: {entry['trl']}."
    theirs, mine = (median(row["seconds"] for row in side["step"]) for side in (entry["trl"], ours))
    return f"{name}, TRL with HF generate: {theirs:.2f} s a step, {theirs / mine:.1f} times ours."
