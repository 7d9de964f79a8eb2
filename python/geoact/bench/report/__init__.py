"""What a person sees of results.

``content`` says what there is to be shown of a document and ``charts`` what there is to be drawn; ``show`` prints it
(rich), ``markdown`` writes it for a pull request, ``plots`` draws it (matplotlib) and ``page`` makes one page of it
(jinja2, plotly). Nothing here measures; the packages are those of the ``bench`` extra.
"""
