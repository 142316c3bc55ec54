# command: sh -c 'mkdir gone && cd gone && rmdir ../gone && exec {python} -c "print(1)"'
