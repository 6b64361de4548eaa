// SPDX-License-Identifier: Apache-2.0

import CoreMetrics
import Testing

@testable import Telemetry

@Suite("A registry")
struct RegistryTests {
  private let registry = MetricsRegistry(["wait_seconds": .init("How long.", bounds: [0.5, 2])])

  private func family(_ name: String, in registry: MetricsRegistry? = nil) -> MetricFamily? {
    (registry ?? self.registry).families().first { $0.name == name }
  }

  private func dropped(by registry: MetricsRegistry? = nil) -> MetricFamily.Value? {
    self.family(MetricsRegistry.droppedName, in: registry)?.samples.first?.value
  }

  @Test("counts up only, and shares a series between all who ask for it, in whatever order the labels are")
  func counters() {
    let first = Counter(label: "calls.total", dimensions: [("b", "2"), ("a", "1")], factory: self.registry)
    let second = Counter(label: "calls.total", dimensions: [("a", "1"), ("b", "2")], factory: self.registry)
    first.increment(by: 3)
    second.increment()
    second.increment(by: -7)
    let other = FloatingPointCounter(label: "calls.total", dimensions: [("a", "2")], factory: self.registry)
    other.increment(by: 0.5)
    other.increment(by: -1.0)
    other.increment(by: Double.infinity)
    #expect(
      self.family("calls_total")
        == MetricFamily(
          "calls_total", .counter, help: nil,
          [
            .init([.init("a", "1"), .init("b", "2")], .integer(4)),
            .init([.init("a", "2")], .number(0.5)),
          ]))
    first.reset()
    #expect(self.family("calls_total")?.samples.first?.value == .integer(0))
    #expect(self.dropped() == .integer(0))
  }

  @Test("keeps the last value of gauges, and what meters add up to")
  func gauges() {
    let gauge = Gauge(label: "g", factory: self.registry)
    gauge.record(7)
    gauge.record(2.5)
    let meter = Meter(label: "m", factory: self.registry)
    meter.set(10)
    meter.increment(by: 5.0)
    meter.decrement()
    #expect(self.family("g") == MetricFamily("g", .gauge, help: nil, [.init(.number(2.5))]))
    #expect(self.family("m") == MetricFamily("m", .gauge, help: nil, [.init(.number(14))]))
  }

  @Test("makes histograms of timers, in seconds, and of recorders")
  func histograms() {
    let timer = Timer(label: "wait.seconds", factory: self.registry)
    timer.recordMilliseconds(400)
    timer.recordSeconds(1)
    timer.recordSeconds(3)
    Recorder(label: "sizes", factory: self.registry).record(1)
    guard case .histogram(let histogram)? = self.family("wait_seconds")?.samples.first?.value else {
      Issue.record("no histogram")
      return
    }
    #expect(histogram.bounds == [0.5, 2])
    #expect(histogram.counts == [1, 1, 1])
    #expect(histogram.sum == 4.4)
    #expect(histogram.count == 3)
    #expect(self.family("wait_seconds")?.help == "How long.")
    #expect(self.family("sizes")?.kind == .histogram)
  }

  @Test("makes names that the format allows, and refuses labels that mean something else")
  func names() {
    Counter(label: "2nd/ä b:c", dimensions: [("x-y", "any\"thing")], factory: self.registry).increment()
    #expect(
      self.family("_2nd____b:c")
        == MetricFamily("_2nd____b:c", .counter, help: nil, [.init([.init("x_y", "any\"thing")], .integer(1))]))
    #expect(self.dropped() == .integer(0))
    let refused = [
      [("le", "1")], [("quantile", "1")], [("__name__", "1")], [("", "1")], [("a", "1"), ("a", "2")],
      [("a.b", "1"), ("a_b", "1")], [("a", String(repeating: "x", count: 257))], (0..<9).map { ("l\($0)", "") },
      [(String(repeating: "x", count: 129), "")],
    ]
    for labels in refused { Counter(label: "refused", dimensions: labels, factory: self.registry).increment() }
    Counter(label: "", factory: self.registry).increment()
    Counter(label: MetricsRegistry.droppedName, factory: self.registry).increment(by: 100)
    #expect(self.family("refused") == nil)
    #expect(self.dropped() == .integer(UInt64(refused.count + 2)))
  }

  @Test("does not mix kinds under one name")
  func kinds() {
    Counter(label: "a", factory: self.registry).increment()
    Timer(label: "a", factory: self.registry).recordSeconds(1)
    Meter(label: "a", dimensions: [("x", "y")], factory: self.registry).increment()
    // Of the same kind, but not the same thing.
    FloatingPointCounter(label: "a", factory: self.registry).increment(by: 2.0)
    #expect(self.family("a") == MetricFamily("a", .counter, help: nil, [.init(.integer(1))]))
    #expect(self.dropped() == .integer(3))
  }

  @Test("holds no more than its limits, counts what is beyond, and has room again for what is destroyed")
  func limits() {
    var limits = MetricsRegistry.Limits()
    limits.families = 3
    limits.seriesPerFamily = 4
    limits.series = 6
    let registry = MetricsRegistry(limits: limits)
    let counters = (0..<10).map { Counter(label: "a", dimensions: [("n", "\($0)")], factory: registry) }
    for counter in counters { counter.increment() }
    #expect(self.family("a", in: registry)?.samples.count == 4)
    #expect(self.dropped(by: registry) == .integer(6))
    for name in ["b", "c", "d"] { Counter(label: name, factory: registry).increment() }
    // The total of series is reached before the number of names.
    #expect(registry.families().map(\.name) == ["a", "b", "c", MetricsRegistry.droppedName])
    #expect(self.dropped(by: registry) == .integer(7))
    for counter in counters { counter.destroy() }
    #expect(self.family("a", in: registry) == nil)
    for name in ["d", "e"] { Counter(label: name, factory: registry).increment() }
    #expect(registry.families().map(\.name) == ["b", "c", "d", MetricsRegistry.droppedName])
    #expect(self.dropped(by: registry) == .integer(8))
  }

  @Test("loses nothing when many count at once")
  func concurrent() async {
    await withTaskGroup { group in
      for _ in 0..<4 {
        group.addTask {
          for index in 0..<1_000 {
            let labels = [("n", "\(index % 10)")]
            Counter(label: "c", dimensions: labels, factory: self.registry).increment()
            Meter(label: "m", dimensions: labels, factory: self.registry).increment()
            Timer(label: "t", dimensions: labels, factory: self.registry).recordNanoseconds(1)
          }
        }
      }
    }
    #expect(self.family("c")?.samples.map(\.value) == Array(repeating: .integer(400), count: 10))
    #expect(self.family("m")?.samples.map(\.value) == Array(repeating: .number(400), count: 10))
    let counts = self.family("t")?.samples.map { sample -> UInt64 in
      guard case .histogram(let histogram) = sample.value else { return 0 }
      return histogram.count
    }
    #expect(counts == Array(repeating: 400, count: 10))
  }
}
