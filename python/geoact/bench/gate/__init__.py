"""A against B, and a verdict that does not flake.

``decide`` is the statistics: paired log-ratios, a bootstrap that knows that rounds of one process belong together,
Holm's correction, and what each verdict means. ``worker`` is one side, a process kept warm that times what it is told;
``sides`` finds or builds what it runs (a git revision, an installed build); ``compare`` lets both sides take turns;
``baseline`` compares stored results instead; ``selftest`` shows that the gate of this machine passes A against A and
catches a slowdown; ``show`` writes tables, Markdown, JSON and JUnit.

``worker`` depends on the standard library and what measures in geoact.bench, so that it runs beside any version of the
package under test; the rest may use NumPy and the ``bench`` extra.
"""
