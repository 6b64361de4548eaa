// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// A line on the terminal that says how far a long transfer is. Silent where standard error is no terminal, and for
/// transfers that take less than half a second.
final class Progress: Sendable {
  private struct State {
    var byteCount: UInt64 = 0
    var fileCount = 0
    var lastDrawn: ContinuousClock.Instant
    var isVisible = false
  }

  private let label: String
  /// Nil when it is not known.
  private let total: UInt64?
  private let isEnabled: Bool
  private let start = ContinuousClock.now
  private let state: Mutex<State>

  private static let interval: Duration = .milliseconds(200)

  init(_ label: String, total: UInt64?, isQuiet: Bool) {
    self.label = label
    self.total = total
    self.isEnabled = !isQuiet && Terminal.isErrorTerminal
    self.state = Mutex(State(lastDrawn: self.start + .milliseconds(300)))
  }

  /// So many bytes more.
  func add(_ byteCount: UInt64) {
    self.update { $0.byteCount &+= byteCount }
  }

  /// One file more.
  func addFile() {
    self.update { $0.fileCount += 1 }
  }

  /// For one file: counts what was copied of it in all, also when it begins anew.
  func forFile() -> @Sendable (UInt64) -> Void {
    let last = Mutex<UInt64>(0)
    return { byteCount in
      let before = last.withLock { last in
        defer { last = byteCount }
        return last
      }
      self.update { $0.byteCount = $0.byteCount &- before &+ byteCount }
    }
  }

  private func update(_ change: (inout State) -> Void) {
    let line = self.state.withLock { state -> String? in
      change(&state)
      guard self.isEnabled, state.lastDrawn.duration(to: .now) >= Self.interval else { return nil }
      state.lastDrawn = .now
      state.isVisible = true
      return self.line(state)
    }
    if let line { Standard.writeError("\r\u{1b}[K\(line)") }
  }

  /// Takes the line away.
  func finish() {
    let isVisible = self.state.withLock { state in
      defer { state.isVisible = false }
      return state.isVisible
    }
    if isVisible { Standard.writeError("\r\u{1b}[K") }
  }

  private func line(_ state: State) -> String {
    let elapsed = self.start.duration(to: .now)
    let seconds = Double(elapsed.components.seconds) + Double(elapsed.components.attoseconds) / 1e18
    let rate = seconds > 0 ? Double(state.byteCount) / seconds : 0
    var text = Format.size(state.byteCount)
    if let total { text += "/\(Format.size(total))" }
    text += "  \(Format.size(UInt64(min(rate, 1e18))))B/s"
    if state.fileCount > 0 { text += "  \(state.fileCount) files" }
    if let total, total > 0 {
      if let left = Format.timeLeft(byteCount: total - min(state.byteCount, total), bytesPerSecond: rate) {
        text += "  \(left) left"
      }
      text = "\(Self.bar(Double(state.byteCount) / Double(total)))  \(text)"
    }
    let room = max(8, Terminal.width - text.count - 3)
    let label = Terminal.escaped(self.label)
    return "\(label.count > room ? "…" + label.suffix(room - 1) : label)  \(text)"
  }

  private static func bar(_ fraction: Double) -> String {
    let width = 20
    let filled = min(width, max(0, Int(fraction * Double(width))))
    return "[\(String(repeating: "#", count: filled))\(String(repeating: ".", count: width - filled))]"
  }
}
