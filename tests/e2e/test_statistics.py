"""Statements and calls are counted whole, however many steps sampling leaves out."""
import stack


def test_every_statement_counts_whatever_sampling_leaves_out(served):
    app = served.flask(served.home())
    requests, statements = 1000, 5
    for _ in range(requests):
        assert app.get("/sql?n=%d" % statements)[0] == 200
    assert served.settled(requests) == requests
    expected = requests * statements

    def counted():
        answer = served.server.get("/api/v1/statistics?kind=sql&from=0&limit=50")
        return {row["key"]: row["count"] for row in answer["rows"]}

    statement = "SELECT amount FROM stock WHERE sku = ?"
    stack.wait_until("all statements are counted", lambda: counted().get(statement, 0) >= expected, 30, 0.2)
    assert counted()[statement] == expected
    assert served.server.lost() == 0
