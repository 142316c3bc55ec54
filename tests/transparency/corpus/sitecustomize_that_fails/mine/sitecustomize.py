raise ValueError('broken by its owner')
