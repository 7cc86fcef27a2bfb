"""Start the built-in model server: ``<python of the package's environment> server.py``, in the package's folder.

Environment: ``PORT`` (required; bound on 127.0.0.1 only), ``MODEL_NAME`` (default: the folder's name) and
``MODEL_SERVER_THREADS`` (default 1). For the rest, see README.md in this folder.
"""

import sys

# As a script, this file's folder is the first entry of sys.path: both packages below are found without being installed.
from builtin_server.run import main

if __name__ == "__main__":
    sys.exit(main())
