# command: sh -c '{python} -m zipfile -c app.zip __main__.py helper.py && exec {python} app.zip a'
print('not this one')
