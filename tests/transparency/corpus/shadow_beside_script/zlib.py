WHO = 'my zlib'
