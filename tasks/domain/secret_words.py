"""How a secret is recognized by the name of its variable."""

from __future__ import annotations

import re

SECRET_WORDS = re.compile("PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|KEY|CREDENTIAL|PRIVATE", re.IGNORECASE)
