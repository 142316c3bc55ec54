# python: 3.12
import sys
print([sys.monitoring.get_tool(number) for number in range(6)])
sys.monitoring.use_tool_id(1, 'mine')
print(sys.monitoring.get_tool(1), sys.monitoring.get_events(1))
