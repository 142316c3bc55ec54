# command: {python} -m pdb main.py
# stdin: b work\nc\np value\nw\nn\nc\nq\n
# python: 3.6
def work(value):
    value += 1
    return value


print(work(41))
