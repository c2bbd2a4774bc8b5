"""Figures of several runs: medians with their spread, tables, and goals.

A figure belongs to a system and to a point, which is what was asked of all systems alike ("64 connections").
"""

import dataclasses
import statistics
import sys


def number(value):
    """Three significant digits, with groups of thousands."""
    if value is None:
        return "–"
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2
    return f"{value:,.{digits}f}"


@dataclasses.dataclass
class Column:
    """A column of a table: the figure in it, and how much of it is written."""

    title: str
    figure: str
    scale: float = 1.0
    spread: bool = True


@dataclasses.dataclass
class Goal:
    """What is to be reached: a ratio or a figure, and its bound."""

    text: str
    value: float | None
    bound: float
    at_least: bool = False

    def row(self):
        if self.value is None:
            verdict = "not measured"
        else:
            is_met = self.value >= self.bound if self.at_least else self.value <= self.bound
            verdict = "met" if is_met else "**missed**"
        sign = "≥" if self.at_least else "≤"
        return f"| {self.text} | {sign} {number(self.bound)} | {number(self.value)} | {verdict} |"


class Results:
    """All figures of one part."""

    def __init__(self):
        self.figures = {}
        self.absent = {}

    def add(self, system, point, **figures):
        """Takes the figures of one run, and prints them."""
        for name, value in figures.items():
            if value is not None:
                self.figures.setdefault((system, point), {}).setdefault(name, []).append(value)
        text = "  ".join(f"{name} {number(value)}" for name, value in figures.items() if value is not None)
        print(f"  {point:<34} {system:<22} {text}", flush=True)

    def fault(self, system, what):
        """A system that could not be measured."""
        self.absent[system] = what.splitlines()[0]
        print(f"  {system}: {what}", file=sys.stderr, flush=True)

    def values(self, system, point, figure):
        return self.figures.get((system, point), {}).get(figure, [])

    def median(self, system, point, figure):
        values = self.values(system, point, figure)
        return statistics.median(values) if values else None

    def ratio(self, figure, point, system, other):
        """A median in units of another system's."""
        above, below = self.median(system, point, figure), self.median(other, point, figure)
        return above / below if above is not None and below else None

    def difference(self, figure, point, system, other):
        """By how much a median is above another system's."""
        above, below = self.median(system, point, figure), self.median(other, point, figure)
        return above - below if above is not None and below is not None else None

    def cell(self, system, point, column):
        values = [value * column.scale for value in self.values(system, point, column.figure)]
        if not values:
            return "–"
        text = number(statistics.median(values))
        if column.spread and len(values) > 1:
            text += f" ({number(min(values))}–{number(max(values))})"
        return text

    def table(self, columns, heading="", points=None):
        """A table with a row for each point and system, in the order in which they were measured first."""
        lines = [f"| {heading} | system | {' | '.join(column.title for column in columns)} |"]
        lines.append("| --- " * (len(columns) + 2) + "|")
        order = list(dict.fromkeys(point for _, point in self.figures))
        for wanted in points or order:
            for system, point in self.figures:
                if point == wanted:
                    cells = " | ".join(self.cell(system, point, column) for column in columns)
                    lines.append(f"| {point} | {system} | {cells} |")
        return "\n".join(lines)


def goals_table(goals):
    lines = ["| goal | bound | measured | |", "| --- | --- | --- | --- |"]
    return "\n".join(lines + [goal.row() for goal in goals])
