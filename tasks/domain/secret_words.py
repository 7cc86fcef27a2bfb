"""Words in the name of a variable that holds a secret."""

from __future__ import annotations

import re

SECRET_WORDS = re.compile("PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|KEY|CREDENTIAL|PRIVATE", re.IGNORECASE)
