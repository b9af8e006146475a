"""The documentation site: `make docs` builds it into docs/_build without network."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT), str(ROOT / "docs")]

project, author, copyright = "Segue", "The Segue authors", "The Segue authors, Apache-2.0"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton", "generated"]
# The sources are the repository, so that links between docs, studies and examples also work on a code host.
root_doc = "docs/index"
include_patterns = [
    *("docs/**.md", "studies/*/README.md", "examples/**.md", "examples/**.ipynb"),
    *("CONTRIBUTING.md", "CHANGELOG.md"),
]
exclude_patterns = ["docs/_*", "src", "tests", "benchmarks", "runs", ".*", "build", "dist"]

html_theme, html_title = "furo", "Segue"
html_static_path, html_css_files = ["_static"], ["site.css"]
html_extra_path = ["_root"]  # index.html, which leads to docs/index.html
html_math_renderer = "mathml"  # defined in generated.py: the browser draws formulas without a script
smartquotes_action = "q"  # the two dashes of a flag stay two
html_copy_source = html_show_sourcelink = False
copybutton_exclude = ".linenos, .gp, .go"
pygments_dark_style = "monokai"

myst_enable_extensions = ["dollarmath", "attrs_inline"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # notebooks show their stored outputs

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
