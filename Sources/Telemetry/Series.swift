// SPDX-License-Identifier: Apache-2.0

internal import CoreMetrics
internal import Synchronization

/// One name with one combination of labels: what a handler of swift-metrics changes.
protocol Series: AnyObject, Sendable {
  var value: MetricFamily.Value { get }
}

/// Counts whole things.
final class CountingSeries: Series, CounterHandler {
  private let count = Atomic<UInt64>(0)

  var value: MetricFamily.Value { .integer(self.count.load(ordering: .relaxed)) }

  /// Only up: what is negative is not counted.
  func increment(by amount: Int64) {
    guard amount > 0 else { return }
    self.count.wrappingAdd(UInt64(amount), ordering: .relaxed)
  }

  func reset() { self.count.store(0, ordering: .relaxed) }
}

/// Sums up parts of things.
final class SummingSeries: Series, FloatingPointCounterHandler {
  private let sum = Mutex(0.0)

  var value: MetricFamily.Value { .number(self.sum.withLock { $0 }) }

  /// Only up: what is negative, endless or not a number is not counted.
  func increment(by amount: Double) {
    guard amount.isFinite, amount > 0 else { return }
    self.sum.withLock { $0 += amount }
  }

  func reset() { self.sum.withLock { $0 = 0 } }
}

/// The latest of a value that goes up and down.
final class GaugeSeries: Series, RecorderHandler, MeterHandler {
  private let number = Mutex(0.0)

  var value: MetricFamily.Value { .number(self.number.withLock { $0 }) }

  func record(_ value: Int64) { self.set(Double(value)) }
  func record(_ value: Double) { self.set(value) }
  func set(_ value: Int64) { self.set(Double(value)) }
  func set(_ value: Double) { self.number.withLock { $0 = value } }
  func increment(by amount: Double) { self.number.withLock { $0 += amount } }
  func decrement(by amount: Double) { self.number.withLock { $0 -= amount } }
}

/// How values are spread.
final class HistogramSeries: Series, RecorderHandler, TimerHandler {
  private let histogram: Mutex<Histogram>

  init(_ bounds: [Double]) { self.histogram = Mutex(Histogram(bounds: bounds)) }

  var value: MetricFamily.Value { .histogram(self.histogram.withLock { $0 }) }

  func record(_ value: Int64) { self.record(Double(value)) }
  func record(_ value: Double) { self.histogram.withLock { $0.record(value) } }
  /// The base unit of the text format is the second.
  func recordNanoseconds(_ duration: Int64) { self.record(Double(duration) / 1e9) }
}
