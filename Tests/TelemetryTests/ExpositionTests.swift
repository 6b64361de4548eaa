// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import Telemetry

@Suite("The text format")
struct ExpositionTests {
  private func text(_ families: MetricFamily...) -> String {
    String(decoding: ExpositionText(families).bytes, as: UTF8.self)
  }

  @Test("says what a name means and is, before its values")
  func headers() {
    let text = self.text(
      MetricFamily("calls_total", .counter, help: "Calls.", .integer(3)),
      MetricFamily(
        "lag", .gauge, help: nil,
        [
          .init([.init("member", "a"), .init("kind", "b")], .number(1.5)),
          .init([.init("member", "c")], .integer(.max)),
        ]))
    #expect(
      text == """
        # HELP calls_total Calls.
        # TYPE calls_total counter
        calls_total 3
        # TYPE lag gauge
        lag{member="a",kind="b"} 1.5
        lag{member="c"} 18446744073709551615

        """)
  }

  @Test("escapes line feeds and backslashes everywhere, and quotes in labels only")
  func escaping() {
    let text = self.text(
      MetricFamily("a", .gauge, help: "one \"two\" \\ \n three", [.init([.init("l", "x\"y\\z\nä")], .integer(0))]))
    #expect(
      text == #"""
        # HELP a one "two" \\ \n three
        # TYPE a gauge
        a{l="x\"y\\z\nä"} 0

        """#)
  }

  @Test("gives a histogram cumulative buckets up to +Inf, a sum and a count")
  func histogram() {
    var histogram = Histogram(bounds: [1, 0.1, 0.1, .infinity])
    for value in [0.1, 0.25, 0.5, 7, 8, .nan] { histogram.record(value) }
    let text = self.text(
      MetricFamily("t_seconds", .histogram, help: "T.", [.init([.init("m", "x")], .histogram(histogram))]))
    #expect(
      text == """
        # HELP t_seconds T.
        # TYPE t_seconds histogram
        t_seconds_bucket{m="x",le="0.1"} 1
        t_seconds_bucket{m="x",le="1"} 3
        t_seconds_bucket{m="x",le="+Inf"} 5
        t_seconds_sum{m="x"} 15.85
        t_seconds_count{m="x"} 5

        """)
  }

  @Test("writes numbers as readers expect them")
  func numbers() {
    let expected: [(Double, String)] = [
      (0, "0"), (-0.0, "0"), (12, "12"), (-3, "-3"), (0.0001, "0.0001"), (1e15, "1000000000000000"), (-1e16, "-1e+16"),
      (2.5e20, "2.5e+20"),
      (.nan, "NaN"), (.infinity, "+Inf"), (-.infinity, "-Inf"),
    ]
    for (value, text) in expected { #expect(ExpositionText.format(value) == text) }
  }

  @Test("has each name once, and none without a value")
  func names() {
    let text = self.text(
      MetricFamily("a", .gauge, help: "A.", .integer(1)), MetricFamily("b", .gauge, help: "B.", []),
      MetricFamily("a", .counter, help: "Again.", .integer(2)))
    #expect(text == "# HELP a A.\n# TYPE a gauge\na 1\n")
  }
}
