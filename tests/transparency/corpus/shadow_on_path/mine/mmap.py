WHO = 'my mmap'
