// SPDX-License-Identifier: Apache-2.0

internal import FoundationEssentials
internal import Logging
internal import Raft
internal import Replication
internal import SectorStore
internal import Sectors
internal import ServiceLifecycle
private import Synchronization
internal import Trust

/// Verifies all that the store holds, again and again and slowly; and has healed what is found damaged, by a pass or by a
/// read, from the other members. What no healing in place can help has the process begin again with a new store, as soon
/// as the cluster does without this one.
final class ScrubKeeper: ServiceLifecycle.Service, StoreUpkeep {
  /// How fast, and how often.
  struct Pace: Sendable {
    /// Bytes in a second; 0 for no pass unless somebody asks for one.
    var rate: UInt64
    /// From the end of a pass to the beginning of the next.
    var rest: Duration
  }

  private let group: SectorGroup
  private let healer: SectorHealer
  private let release: StoreRelease
  private let place: StorePlace
  private let end: NodeEnd
  private let pace: Pace
  private let path: String
  private let logger: Logger
  private let shared = Mutex(Shared())

  /// What others see, and ask for.
  private struct Shared {
    var status = ScrubStatus()
    var lastNumber: UInt64 = 0
    /// A pass that was asked for and has not begun.
    var request: Request?
    var setAside: [String] = []
  }

  private struct Request {
    var number: UInt64
    var rate: UInt64?
  }

  /// What only the running task knows.
  private struct Work {
    var record: ScrubRecord
    var cursor: ScrubCursor?
    /// Before it, no pass begins or goes on by itself.
    var due: ContinuousClock.Instant
    var lastWritten = ContinuousClock.now
    var unhealed: [DamagePlace: Attempt] = [:]
    /// In the order in which they were found.
    var order: [DamagePlace] = []
    var nextReplacement = ContinuousClock.now
    var replacementPause = ScrubKeeper.pauseMin
  }

  private struct Attempt {
    var healing: SectorHealer.Healing
    var detail = ""
    var pause = ScrubKeeper.pauseMin
    var next: ContinuousClock.Instant
  }

  /// What is read at once.
  private static let stepByteCount = 1 << 20
  private static let interval = Duration.milliseconds(500)
  /// Between two attempts at the same place; doubles up to the longest.
  private static let pauseMin = Duration.seconds(2)
  private static let pauseMax = Duration.seconds(300)
  /// How much of a pass may be done again after a crash.
  private static let writeInterval = Duration.seconds(30)
  /// After a start, so that not all members read at once, and none while everything begins.
  private static let firstDelay: ClosedRange<Int64> = 600...3_600
  private static let resumeDelay: ClosedRange<Int64> = 60...300

  init(
    group: SectorGroup, healer: SectorHealer, release: StoreRelease, place: StorePlace, end: NodeEnd, pace: Pace,
    directory: NodeDirectory, logger: Logger
  ) {
    self.group = group
    self.healer = healer
    self.release = release
    self.place = place
    self.end = end
    self.pace = pace
    self.path = directory.scrub
    self.logger = logger
  }

  // MARK: What others see

  var scrubStatus: ScrubStatus { self.shared.withLock { $0.status } }
  var storesSetAside: [String] { self.shared.withLock { $0.setAside } }
  var healed: SectorHealer.Counts { self.healer.counts }

  func beginScrub(rate: UInt64?) -> UInt64 {
    self.shared.withLock { shared in
      shared.lastNumber += 1
      shared.request = Request(number: shared.lastNumber, rate: rate)
      return shared.lastNumber
    }
  }

  // MARK: Running

  func run() async throws {
    let record = ScrubRecord.read(self.path, member: self.group.replica.member.rawValue)
    var work = Work(record: record, due: .now + .seconds(Self.delay(record)))
    work.cursor = record.cursor.flatMap { ScrubCursor(encoded: Array($0)) }
    self.shared.withLock { shared in
      shared.lastNumber += record.lastNumber
      shared.request?.number += record.lastNumber
      shared.status.last = record.last
      shared.status.running = record.running
      shared.setAside = self.place.setAside
      if record.running == nil, record.isRequested, shared.request == nil {
        shared.lastNumber += 1
        shared.request = Request(number: shared.lastNumber, rate: record.rate)
      }
    }
    if let due = self.nextDue(record) { work.due = due }
    let initial = work
    await cancelWhenGracefulShutdown { await self.work(initial) }
  }

  /// Seconds.
  private static func delay(_ record: ScrubRecord) -> Int64 {
    if record.isRequested { return 0 }
    return .random(in: record.running == nil ? self.firstDelay : self.resumeDelay)
  }

  /// When the next pass begins, after one that came to its end.
  private func nextDue(_ record: ScrubRecord) -> ContinuousClock.Instant? {
    guard record.running == nil, let end = record.last?.end else { return nil }
    let passed = Duration.seconds(Self.time() - end)
    let rest = self.pace.rest - passed
    return .now + max(rest, .seconds(Self.firstDelay.lowerBound))
  }

  private static func time() -> Int64 { WallClock.nanoseconds() / 1_000_000_000 }

  private func work(_ initial: Work) async {
    var work = initial
    while !Task.isCancelled {
      await self.mend(&work)
      if let request = self.shared.withLock({ shared in
        defer { shared.request = nil }
        return shared.request
      }) {
        self.begin(&work, request.number, rate: request.rate, isRequested: true)
      }
      let isDue = work.due <= .now && (self.pace.rate > 0 || work.record.isRequested)
      if isDue, work.record.running == nil {
        let number = self.shared.withLock { shared in
          shared.lastNumber += 1
          return shared.lastNumber
        }
        self.begin(&work, number, rate: nil, isRequested: false)
      }
      do {
        if isDue, work.record.running != nil {
          try await self.step(&work)
        } else {
          try await Task.sleep(for: Self.interval)
        }
      } catch is CancellationError {
        break
      } catch {
        // The store refuses everything; whoever keeps it ends the node.
        try? await Task.sleep(for: .seconds(1))
      }
    }
    self.write(&work)
  }

  private func begin(_ work: inout Work, _ number: UInt64, rate: UInt64?, isRequested: Bool) {
    work.record.lastNumber = number
    work.record.running = ScrubPass(
      number: number, start: Self.time(), expectedByteCount: UInt64(clamping: self.group.store.scrubByteCount))
    work.record.isRequested = isRequested
    work.record.rate = rate
    work.cursor = nil
    work.due = .now
    // Whoever asks wants to know what can be done now.
    if isRequested {
      for place in work.order { work.unhealed[place]?.next = .now }
      work.nextReplacement = .now
    }
    self.logger.debug("verifying the store", metadata: ["pass": "\(number)"])
    self.write(&work)
  }

  /// Verifies the next piece, and rests for as long as the rate wants it.
  private func step(_ work: inout Work) async throws {
    let start = ContinuousClock.now
    let step = try await self.group.store.scrubStep(after: work.cursor, byteCountMax: Self.stepByteCount)
    work.cursor = step.next
    work.record.running?.verifiedByteCount += UInt64(clamping: step.byteCount)
    for place in step.damaged {
      self.logger.error("the store is damaged", metadata: ["place": "\(place)"])
    }
    work.record.running?.foundCount += UInt64(step.damaged.count)
    self.publish(work)
    guard step.next != nil else {
      // What it has found is tried at least once before it is said to be over.
      await self.mend(&work)
      return self.finish(&work)
    }
    if work.lastWritten + Self.writeInterval < .now { self.write(&work) }
    let rate = work.record.rate ?? max(self.pace.rate, 1 << 20)
    let rest = Duration.seconds(Double(step.byteCount) / Double(rate)) - (ContinuousClock.now - start)
    if rest > .zero { try await Task.sleep(for: rest) }
  }

  private func finish(_ work: inout Work) {
    guard var pass = work.record.running else { return }
    pass.end = Self.time()
    work.record.last = pass
    work.record.running = nil
    work.record.isRequested = false
    work.record.rate = nil
    work.due = .now + self.pace.rest
    self.write(&work)
    self.logger.info(
      "the store was verified",
      metadata: [
        "pass": "\(pass.number)", "bytes": "\(pass.verifiedByteCount)", "damaged": "\(pass.foundCount)",
        "healed": "\(pass.healedCount)",
      ])
  }

  /// Keeps how far it is, and tells.
  private func write(_ work: inout Work) {
    work.record.cursor = work.cursor.map { Data($0.encoded()) }
    work.lastWritten = .now
    self.publish(work)
    // A disk that is full or broken is others' business.
    do { try work.record.write(self.path) } catch {
      self.logger.debug("how far the store was verified was not written", metadata: ["error": "\(error)"])
    }
  }

  private func publish(_ work: Work) {
    let damages = work.order.compactMap { place in
      work.unhealed[place].map { UnhealedDamage(place: place, healing: $0.healing, detail: $0.detail) }
    }
    self.shared.withLock { shared in
      shared.status.running = work.record.running
      shared.status.last = work.record.last
      shared.status.damages = Array(damages.prefix(ScrubStatus.damagesMax))
      shared.status.omittedCount =
        UInt64(damages.count - shared.status.damages.count) + UInt64(self.group.store.damageReport.omittedCount)
    }
  }

  // MARK: Healing

  /// Has healed what is known to be damaged and was not tried just before.
  private func mend(_ work: inout Work) async {
    let report = self.group.store.damageReport
    let known = Set(report.places)
    for place in work.order where !known.contains(place) {
      // A read had it healed, or nothing refers to it any more.
      work.unhealed[place] = nil
    }
    let hadSome = !work.order.isEmpty
    work.order.removeAll { work.unhealed[$0] == nil }
    let now = ContinuousClock.now
    let due = report.places.filter { place in work.unhealed[place].map { $0.next <= now } ?? true }
    if !due.isEmpty {
      let results = await self.healer.heal(due)
      for place in due { if let healing = results[place] { self.note(healing, of: place, &work) } }
    }
    if !due.isEmpty || hadSome { self.publish(work) }
    if work.order.contains(where: { work.unhealed[$0]?.healing == .needsNewStore }), work.nextReplacement <= .now {
      await self.replace(&work)
    }
  }

  private func note(_ healing: SectorHealer.Healing, of place: DamagePlace, _ work: inout Work) {
    guard !healing.isWhole else {
      if work.unhealed.removeValue(forKey: place) != nil { work.order.removeAll { $0 == place } }
      guard healing == .healed else { return }
      self.logger.notice("what was damaged is healed", metadata: ["place": "\(place)"])
      if work.record.running != nil {
        work.record.running?.healedCount += 1
      } else if let last = work.record.last, last.healedCount < last.foundCount {
        work.record.last?.healedCount += 1
      }
      return
    }
    let before = work.unhealed[place]
    if before == nil { work.order.append(place) }
    let pause = before.map { min($0.pause * 2, Self.pauseMax) } ?? Self.pauseMin
    work.unhealed[place] = Attempt(
      healing: healing, detail: before?.healing == healing ? before?.detail ?? "" : "", pause: pause, next: .now + pause
    )
    if before?.healing != healing {
      self.logger.error("damage could not be healed", metadata: ["place": "\(place)", "why": "\(healing)"])
    }
  }

  /// Asks the cluster to do without this store.
  private func replace(_ work: inout Work) async {
    let why: String
    switch await self.askForRelease() {
    case .granted:
      self.logger.error("the store is damaged, and the cluster does without it: beginning again with a new one")
      self.write(&work)
      return self.end.request(.storeDamaged)
    case .refused(let reason): why = reason
    }
    work.nextReplacement = .now + work.replacementPause
    work.replacementPause = min(work.replacementPause * 2, Self.pauseMax)
    for place in work.order where work.unhealed[place]?.healing == .needsNewStore {
      if work.unhealed[place]?.detail != why {
        self.logger.error(
          "the store is damaged, and can not be replaced now", metadata: ["place": "\(place)", "why": "\(why)"])
      }
      work.unhealed[place]?.detail = why
    }
    self.publish(work)
  }

  private func askForRelease() async -> StoreRelease.Answer {
    let kept = self.place.setAside
    self.shared.withLock { $0.setAside = kept }
    guard kept.count(where: { $0.contains(".damaged-") }) < StorePlace.setAsideMax else {
      return .refused("as many damaged stores as there may be are set aside already; remove those not needed")
    }
    let status = self.group.replica.status
    guard status.membership.members.count > 1 else { return .refused("there is no other member") }
    if status.leadership.role == .leader {
      // Another one has to say that it can be done without.
      _ = try? await self.group.transferLeadership(to: nil)
      guard self.group.replica.leader != self.group.replica.member else {
        return .refused(StoreRelease.sentence(for: .leads))
      }
    }
    guard let leader = self.group.leader, leader.path != self.group.memberPath else { return .refused("nobody leads") }
    return await self.release.ask([leader])
  }
}
