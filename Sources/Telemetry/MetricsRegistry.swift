// SPDX-License-Identifier: Apache-2.0

package import CoreMetrics
internal import Synchronization

/// Keeps what a program counts and measures in memory, and says what it is at any moment: a backend of swift-metrics.
///
/// Nothing is ever sent anywhere; see ``families()``. A counter stays a counter. A recorder that aggregates, and a
/// timer, become histograms, the timer's in seconds; a recorder that does not aggregate, and a meter, become gauges.
/// Asking twice for the same name and labels gives the same series.
///
/// Memory is bounded by ``Limits``. Whoever asks for more than that, for a name that is in use for something else, or
/// for a label that can not be, gets a handler that works and is never shown; ``droppedName`` counts these requests.
package final class MetricsRegistry: Sendable {
  package struct Limits: Hashable, Sendable {
    /// Names.
    package var families = 256
    /// Combinations of labels of one name.
    package var seriesPerFamily = 1_024
    /// Of all names together.
    package var series = 4_096
    /// Labels of one series.
    package var labels = 8
    /// Of the value of a label. Longer ones come from somewhere that nobody has bounded.
    package var labelValueByteCount = 256

    package init() {}
  }

  /// What is known of a name beforehand.
  package struct Description: Hashable, Sendable {
    package let help: String
    /// Where the buckets end, if it is a histogram.
    package let bounds: [Double]

    package init(_ help: String, bounds: [Double] = Histogram.durationBounds) {
      self.help = help
      self.bounds = bounds
    }
  }

  /// A counter of the registry's own.
  package static let droppedName = "telemetry_dropped_series_total"

  private struct Family {
    let kind: MetricFamily.Kind
    var series: [[MetricFamily.Label]: any Series] = [:]
  }

  private struct State {
    var families: [String: Family] = [:]
    var seriesCount = 0
    var droppedCount: UInt64 = 0
  }

  private let limits: Limits
  private let descriptions: [String: Description]
  private let state = Mutex(State())

  /// - Parameter descriptions: by name, as it is shown.
  package init(_ descriptions: [String: Description] = [:], limits: Limits = Limits()) {
    self.descriptions = descriptions
    self.limits = limits
  }

  /// All that is kept, sorted by name and labels, each series at a moment of its own.
  package func families() -> [MetricFamily] {
    let (families, droppedCount) = self.state.withLock { ($0.families, $0.droppedCount) }
    var result = families.map { name, family in
      MetricFamily(
        name, family.kind, help: self.descriptions[name]?.help,
        family.series.map { labels, series in MetricFamily.Sample(labels, series.value) }
          .sorted { Self.isBefore($0.labels, $1.labels) })
    }
    result.append(
      MetricFamily(
        Self.droppedName, .counter, help: "Requests for a series that is not kept: too many, or malformed.",
        .integer(droppedCount)))
    return result.sorted { $0.name < $1.name }
  }

  private static func isBefore(_ left: [MetricFamily.Label], _ right: [MetricFamily.Label]) -> Bool {
    for (left, right) in zip(left, right) where left != right {
      return (left.name, left.value) < (right.name, right.value)
    }
    return left.count < right.count
  }

  // MARK: Series

  private func make<S: Series>(
    _ text: String, _ dimensions: [(String, String)], _ kind: MetricFamily.Kind, _ make: (Description?) -> S
  ) -> S {
    guard let name = MetricName.metric(text), let labels = self.labels(dimensions), name != Self.droppedName else {
      self.state.withLock { $0.droppedCount &+= 1 }
      return make(nil)
    }
    let new = make(self.descriptions[name])
    return self.state.withLock { state in
      var family = state.families[name] ?? Family(kind: kind)
      if let existing = family.series[labels] as? S, family.kind == kind { return existing }
      guard family.kind == kind, family.series[labels] == nil, self.hasRoom(state, family, name) else {
        state.droppedCount &+= 1
        return new
      }
      family.series[labels] = new
      state.families[name] = family
      state.seriesCount += 1
      return new
    }
  }

  private func hasRoom(_ state: State, _ family: Family, _ name: String) -> Bool {
    state.seriesCount < self.limits.series && family.series.count < self.limits.seriesPerFamily
      && (state.families[name] != nil || state.families.count < self.limits.families)
  }

  /// Sorted by name; nil where they can not be.
  private func labels(_ dimensions: [(String, String)]) -> [MetricFamily.Label]? {
    guard dimensions.count <= self.limits.labels else { return nil }
    var labels: [MetricFamily.Label] = []
    for (name, value) in dimensions {
      guard let name = MetricName.label(name), value.utf8.count <= self.limits.labelValueByteCount,
        !labels.contains(where: { $0.name == name })
      else { return nil }
      labels.append(MetricFamily.Label(name, value))
    }
    return labels.sorted { $0.name < $1.name }
  }

  private func remove(_ handler: AnyObject) {
    self.state.withLock { state in
      for (name, var family) in state.families {
        guard let labels = family.series.first(where: { $0.value === handler })?.key else { continue }
        family.series[labels] = nil
        state.families[name] = family.series.isEmpty ? nil : family
        state.seriesCount -= 1
        return
      }
    }
  }
}

extension MetricsRegistry: MetricsFactory {
  package func makeCounter(label: String, dimensions: [(String, String)]) -> any CounterHandler {
    self.make(label, dimensions, .counter) { _ in CountingSeries() }
  }

  package func makeFloatingPointCounter(
    label: String, dimensions: [(String, String)]
  ) -> any FloatingPointCounterHandler {
    self.make(label, dimensions, .counter) { _ in SummingSeries() }
  }

  package func makeMeter(label: String, dimensions: [(String, String)]) -> any MeterHandler {
    self.make(label, dimensions, .gauge) { _ in GaugeSeries() }
  }

  package func makeRecorder(
    label: String, dimensions: [(String, String)], aggregate: Bool
  ) -> any RecorderHandler {
    guard aggregate else { return self.make(label, dimensions, .gauge) { _ in GaugeSeries() } }
    return self.make(label, dimensions, .histogram) { HistogramSeries($0?.bounds ?? Histogram.durationBounds) }
  }

  package func makeTimer(label: String, dimensions: [(String, String)]) -> any TimerHandler {
    self.make(label, dimensions, .histogram) { HistogramSeries($0?.bounds ?? Histogram.durationBounds) }
  }

  package func destroyCounter(_ handler: any CounterHandler) { self.remove(handler) }
  package func destroyFloatingPointCounter(_ handler: any FloatingPointCounterHandler) { self.remove(handler) }
  package func destroyMeter(_ handler: any MeterHandler) { self.remove(handler) }
  package func destroyRecorder(_ handler: any RecorderHandler) { self.remove(handler) }
  package func destroyTimer(_ handler: any TimerHandler) { self.remove(handler) }
}
