# command: sh -c '{python} -m pytest --version >/dev/null 2>&1 || { echo "no pytest here"; exit 0; }; {python} -m pytest -q -p no:cacheprovider 2>&1 | sed "s/in [0-9.]*s/in Ns/"'
