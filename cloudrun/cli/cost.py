"""cost: what it cost, what it would have cost elsewhere, and what the provider says that it cost."""

from __future__ import annotations

from cloudrun.cli.lazy import Entry, LazyGroup

cost = LazyGroup(
    "cost",
    help="Show what was spent, compare prices, read bills.\n\n"
    "Everything that is paid for stands in the ledger from before it exists until its provider says that it "
    "ended. Amounts are in US dollars; --currency shows them in another by a stated rate.",
    sections={
        "Commands": (
            Entry("report", "cloudrun.cli.cost_report:report", "Show what was spent, and what still costs."),
            Entry("compare", "cloudrun.cli.cost_compare:compare", "Show what the same work costs elsewhere."),
            Entry(
                "import", "cloudrun.cli.cost_import:import_bill", "Lay a provider's bill beside the ledger."
            ),
        )
    },
    examples=(
        "cloudrun cost report --by month",
        "cloudrun cost compare --hours 45 --gpu K80",
        "cloudrun cost import cur-2026-11-00001.csv.gz",
    ),
)
