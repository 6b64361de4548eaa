// SPDX-License-Identifier: Apache-2.0

internal import Glibc
internal import SectorStore

// Changes the store given as the first argument until it is killed, with many changes in flight, and prints the index
// of each entry that was acknowledged. The second argument is the seed of the contents.

let arguments = CommandLine.arguments
guard arguments.count == 3, let seed = UInt64(arguments[2]) else {
  print("error usage")
  exit(64)
}

func printNow(_ line: String) {
  let bytes = Array((line + "\n").utf8)
  _ = write(1, bytes, bytes.count)
}

do throws(StoreError) {
  let store = try SectorStore.open(at: arguments[1], CrashWorkload.configuration)
  var next = store.status().appliedIndex.rawValue + 1
  var waiting: [PendingChange] = []
  while true {
    while waiting.count < 16 {
      waiting.append(try store.enqueue(CrashWorkload.change(next, seed: seed)))
      next += 1
    }
    let index = try await waiting.removeFirst().durable()
    printNow(String(index.rawValue))
  }
} catch {
  printNow("error \(error)")
  exit(1)
}
