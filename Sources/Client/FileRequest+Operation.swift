// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema

extension FileRequest {
  /// Whether the operation changes something.
  var isMutation: Bool {
    switch self.operation {
    case .stat, .list, .readSymbolicLink, .read, .statFilesystem: false
    case .makeDirectory, .makeSymbolicLink, .makeLink, .write, .truncate, .rename, .remove, .setAttributes: true
    }
  }

  /// Whether an id makes it safe to repeat.
  var takesID: Bool {
    if case .write(let write) = self.operation {
      return write.header.writeMode == .replace || write.header.writeMode == .create
    }
    return self.isMutation
  }

  /// Whether it may be made again when its answer was lost.
  var isRepeatable: Bool { !self.isMutation || self.takesID && self.id != nil }

  /// What it costs to hold: the bytes that are sent or asked for.
  var byteCount: Int {
    switch self.operation {
    case .write(let write): write.data.count + 256
    case .read(let read): Int(clamping: read.length) + 256
    default: 512
    }
  }

  /// The bytes that it takes on the wire, roughly.
  var messageByteCount: Int {
    if case .write(let write) = self.operation { write.data.count + 256 } else { 256 }
  }

  var id: Blocktree_V1_OperationId? {
    get {
      switch self.operation {
      case .stat, .list, .readSymbolicLink, .read, .statFilesystem: nil
      case .makeDirectory(let request): request.hasOperation ? request.operation : nil
      case .makeSymbolicLink(let request): request.hasOperation ? request.operation : nil
      case .makeLink(let request): request.hasOperation ? request.operation : nil
      case .write(let request): request.header.hasOperation ? request.header.operation : nil
      case .truncate(let request): request.hasOperation ? request.operation : nil
      case .rename(let request): request.hasOperation ? request.operation : nil
      case .remove(let request): request.hasOperation ? request.operation : nil
      case .setAttributes(let request): request.hasOperation ? request.operation : nil
      }
    }
    set {
      guard let id = newValue else { return }
      switch self.operation {
      case .stat, .list, .readSymbolicLink, .read, .statFilesystem: break
      case .makeDirectory(var request):
        request.operation = id
        self.operation = .makeDirectory(request)
      case .makeSymbolicLink(var request):
        request.operation = id
        self.operation = .makeSymbolicLink(request)
      case .makeLink(var request):
        request.operation = id
        self.operation = .makeLink(request)
      case .write(var request):
        request.header.operation = id
        self.operation = .write(request)
      case .truncate(var request):
        request.operation = id
        self.operation = .truncate(request)
      case .rename(var request):
        request.operation = id
        self.operation = .rename(request)
      case .remove(var request):
        request.operation = id
        self.operation = .remove(request)
      case .setAttributes(var request):
        request.operation = id
        self.operation = .setAttributes(request)
      }
    }
  }
}
