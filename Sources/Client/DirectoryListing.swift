// SPDX-License-Identifier: Apache-2.0

/// The entries of a directory, fetched a page at a time.
public struct DirectoryListing<Operations: FileOperations>: AsyncSequence, Sendable {
  public typealias Element = DirectoryEntry

  let operations: Operations
  let path: String
  let includesInfo: Bool
  let noteStale: (@Sendable () -> Void)?

  public func makeAsyncIterator() -> AsyncIterator {
    AsyncIterator(listing: self)
  }

  public struct AsyncIterator: AsyncIteratorProtocol {
    private let listing: DirectoryListing
    private var page: ArraySlice<DirectoryEntry> = []
    private var cursor: [UInt8]?
    private var isAtEnd = false

    init(listing: DirectoryListing) {
      self.listing = listing
    }

    public mutating func next() async throws -> DirectoryEntry? {
      // A page may be empty and not the last.
      while self.page.isEmpty {
        if self.isAtEnd { return nil }
        try Task.checkCancellation()
        let page = try await self.listing.operations.listPage(
          self.listing.path, from: self.cursor, includesInfo: self.listing.includesInfo)
        if page.isStale { self.listing.noteStale?() }
        self.page = page.entries[...]
        self.cursor = page.nextCursor
        self.isAtEnd = page.nextCursor == nil
      }
      return self.page.popFirst()
    }
  }
}
