"""`main.py PYTHON VERB -f FILE`: where the scripts enter, on a bare interpreter without site.

Short, because the file that Python runs is compiled anew each time; `verbs.py` is not.
"""

import os
import sys

# Real paths: ".." behind a linked directory means another place to the kernel than to a text.
here = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.dirname(os.path.dirname(here)))
bin_dir, name = os.path.split(sys.argv[1])
bin_dir = os.path.realpath(bin_dir)
sys.path.append(
    "{}/lib/python{}.{}/site-packages".format(os.path.dirname(bin_dir), *sys.version_info)
)

from interfaces.hostfactory.verbs import main  # noqa: E402

# Nothing is left to be cleaned up: tearing the interpreter down would cost a tenth of the call.
os._exit(main(f"{bin_dir}/{name}", *sys.argv[2:]))
