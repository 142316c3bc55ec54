# command: sh -c 'printf "#!%s\nimport sys\nprint(sys.argv)\n" {python} > script && chmod +x script && exec ./script a b'
print('not this one')
