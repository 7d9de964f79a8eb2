"""Section g: five questions, each with outcomes and a decision rule stated before anything is run.

=================  =========================================================================================
``specs``          what is run: small frozen objects, one per unit of work, and the key a result is kept under
``sizes``          how much is run: ``QUICK`` and ``FULL``
``plan``           sizes as lists of specs
``tasks``          two moons, circles, two spirals, digits: training, validation and test data
``hidden``         what stands between two weight matrices: an activation, BatchNorm and ReLU, TAT, GAL
``deep``           a stack of deep networks made of those
``geometry``       what is measured in one layer of one network
``initial`` ...    the units of work: plain functions of a spec (``initial``, ``trained``, ``paired``, ``inference``)
``store``,         results on disk, one file per unit, and the processes (or Ray tasks) that make them
``engine``
``rows``           results of units as rows with intervals
``statistics``     intervals and rank correlations of clustered runs
``rules``          outcomes and decision rules: functions of numbers, and nothing else
``answers``        the rules applied to the rows, in words
``figures``,       drawing and tables: no measurements
``tables``
=================  =========================================================================================

A unit depends on its spec alone: seeds come from it, one thread does the arithmetic, so that neither the number of
processes nor the order of units changes a digit. Timings are the exception, and run by themselves at the end.
"""
