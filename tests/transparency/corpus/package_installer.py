# command: sh -c '{python} -m pip --version && {python} -m pip --disable-pip-version-check list --format=freeze 2>/dev/null'
