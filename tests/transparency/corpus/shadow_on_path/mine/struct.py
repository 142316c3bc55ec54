WHO = 'my struct'
