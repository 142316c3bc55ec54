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


def test_the_slowest_statement_of_thousands_is_found(served):
    app = served.flask(served.home())
    assert app.get("/report")[0] == 200
    assert served.settled(1) == 1
    row = served.server.transactions(name="/report")[0]
    assert row["sql_count"] == 2001 and row["sql_us"] >= 300_000, row
    steps = served.server.transaction(row["id"])["steps"]
    assert len(steps) < 1100 and sum(step["repeat"] for step in steps if step["kind"] == "sql") == 2001
    slowest = max(steps, key=lambda step: step["elapsed_us"] / step["repeat"])
    assert "wait" in slowest["text"] and slowest["repeat"] == 1 and slowest["elapsed_us"] >= 300_000, slowest
    by_statement = {r["key"]: r for r in served.server.get("/api/v1/statistics?kind=sql&from=0&limit=50")["rows"]}
    assert by_statement["SELECT amount FROM stock WHERE sku = ?"]["count"] == 2000
    assert by_statement["SELECT amount FROM stock WHERE sku = ?"]["max_us"] < 100_000
    assert by_statement[slowest["text"]]["max_us"] >= 300_000
