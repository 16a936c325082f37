"""The studio: bisquit's models behind HTTP, for one person's browser and scripts.

    request ──guard──> route ──schemas, uploads──> order ──worker's bounded queue──> model ──> answer
                                                                                       └──keep──> gallery

guard      foreign hosts and origins, bodies too large or too slow; headers that keep pages to themselves
worker     one thread that computes; who waits with the same settings is painted together
gallery    pictures that stay, each with the recipe that paints it again
runs       training runs: their curves and latest pictures

The one package that imports a web framework, which the extra `studio` installs; importing this module imports none.
"""

from __future__ import annotations
