"""The Triton kernels of geoact, installed as ``geoact.kernels``.

- ``vocabulary``, ``coefficients``: the verbs activations are written with (exp, ldexp, head and tail, ...);
- ``activations``: WHAT an activation is: a value and a slope, and the registry ``ACTIVATIONS`` that names them;
- ``statistics``: WHAT is measured: lanes that a tile is added to, records they become, and how records merge;
- ``masks``: ReLU with a mask of one bit per element;
- ``fused``: HOW memory is passed over: one forward and one backward kernel, which take the functions as arguments;
- ``tiers``: what is measured between samples where it is asked for, by kernels of their own before the forward one.

The definitions are those of ``csrc/ops``; tests hold the two together. This folder is a leaf: it imports triton and
nothing else, neither torch nor the rest of geoact, and importing it compiles nothing. Tensors are chosen, checked and
passed in by ``geoact.torch.triton``.

The kernels are to be compiled with ``enable_fp_fusion=False``: a contraction the source does not name would break the
error-free products, and could make y depend on whether statistics are measured.
"""
