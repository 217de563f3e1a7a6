"""`main.py PYTHON VERB -f FILE`: where the scripts enter, on a bare interpreter without site.

Short, because the file that Python runs is compiled anew each time; `verbs.py` is not.
"""

import os
import sys

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(os.path.dirname(here)))
sys.path.append(
    "{}/lib/python{}.{}/site-packages".format(
        os.path.dirname(os.path.dirname(os.path.abspath(sys.argv[1]))), *sys.version_info
    )
)

from interfaces.hostfactory.verbs import main  # noqa: E402

# Nothing is left to be cleaned up: tearing the interpreter down would cost a fifth of the call.
os._exit(main(*sys.argv[1:]))
